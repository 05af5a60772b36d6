"""Reference values that outsiders can reproduce: what hardware measures when it starts given firmware and kernel."""
