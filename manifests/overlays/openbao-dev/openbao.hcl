# In addition to the listener of -dev: one that pods can reach, over TLS, which the sidecar requires.
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/etc/openbao-tls/tls.crt"
  tls_key_file  = "/etc/openbao-tls/tls.key"
}
