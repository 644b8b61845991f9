"""What tests share: toy models, stand-ins, servers, clients, how to compare and how to wait."""
