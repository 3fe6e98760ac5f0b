"""The stages of a build on the store and the cluster: one module per stage, URIs in, URIs out."""
