"""How the pages become a site: `make docs`, with mkdocs.yml at the checkout's root."""
