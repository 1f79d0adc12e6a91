"""The public functions: what the commands do, on objects of the caller's as on files. `tfq` names them."""
