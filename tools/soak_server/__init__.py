"""A live `griffin serve` under many clients at once and under kill -9."""
