# OpenBao beside the verifier, in the same guest. It listens on the pod's loopback alone; its storage is what its barrier
# has encrypted, on a volume that the host holds.
storage "raft" {
  path    = "/openbao/data"
  node_id = "morphisms-verifier-0"
}

listener "tcp" {
  address     = "127.0.0.1:8200"
  tls_disable = true  # never leaves the guest
}

api_addr      = "http://127.0.0.1:8200"
cluster_addr  = "https://127.0.0.1:8201"
disable_mlock = true  # the pod has no capability for it, and a guest has no swap
ui            = false
