"""Laws of admission, checked on generated pods and Services with a second implementation of the policy."""
