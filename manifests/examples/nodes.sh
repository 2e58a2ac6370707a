#!/bin/sh
# Mark a node that you have looked at as one that hosts SNP guests. A kubelet can set most labels on its own node, but none
# below node-restriction.kubernetes.io, and no taint. Then name the label as the profile's trustedLabel.
set -eu
for node in "$@"; do
  kubectl label node "$node" morphisms.node-restriction.kubernetes.io/snp=true
done
# Nodes with a single purpose, the key server's, keep everybody else away; `reserved` in the configuration knows this key:
#   kubectl label node NODE morphisms.node-restriction.kubernetes.io/kms=true
#   kubectl taint node NODE morphisms.node-restriction.kubernetes.io/kms=true:NoSchedule
