"""Reading back what was logged. Contract section 7."""
