"""The `seqrec-export` command line."""
