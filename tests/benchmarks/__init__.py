"""`make bench`: Kibitz beside a bare pass-through, nginx and a direct connection, in one run. Figures, no pass mark."""
