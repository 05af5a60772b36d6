"""The three scenarios, played from their pages over the real relay, and then searched as a provider could."""
