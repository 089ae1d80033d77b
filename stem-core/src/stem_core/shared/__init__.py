"""What several processes must agree on, built once on the backend's ``state`` port."""
