"""The members' commands: each module is one group of `superswarm`, and exposes it as `app`."""
