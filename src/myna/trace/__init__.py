"""What calls, tools and checks did, kept in one SQLite file. No torch."""
