"""What keeps a run of many trials honest and cheap: its pace, its money, and what is kept of trials cut off."""
