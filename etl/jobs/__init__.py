"""One module per stage of a build: URIs in, URI out."""
