# Beside what -dev brings: the address that others reach, over TLS, as the sidecar speaks nothing else.
listener "tcp" {
  address       = "0.0.0.0:8200"
  tls_cert_file = "/etc/openbao-tls/tls.crt"
  tls_key_file  = "/etc/openbao-tls/tls.key"
}
