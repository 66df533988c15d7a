"""The whole loop on a real model, told through the same commands and services that users have."""
