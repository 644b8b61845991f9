"""Several processes that serve at one address, each with a model of its own.

supervisor: who starts and watches them. command: what they are started with. replica: what one is
told, and what ends it with its supervisor. acceptor: how they share connections. peers: how they
ask each other.
"""
