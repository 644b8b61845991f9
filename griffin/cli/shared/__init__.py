"""What verbs share: options, bars and words for people. No verb imports another."""
