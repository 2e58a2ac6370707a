#!/bin/sh
# Label nodes that you have inspected as hosts of SNP guests. A kubelet can set most labels on its own node, but not labels
# below node-restriction.kubernetes.io, and no taints. Then set the label as the profile's trustedLabel.
set -eu
for node in "$@"; do
  kubectl label node "$node" morphisms.node-restriction.kubernetes.io/snp=true
done
# To reserve nodes for a single purpose, such as the key server (`reserved` in the configuration lists this key):
#   kubectl label node NODE morphisms.node-restriction.kubernetes.io/kms=true
#   kubectl taint node NODE morphisms.node-restriction.kubernetes.io/kms=true:NoSchedule
