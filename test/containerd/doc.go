// SPDX-License-Identifier: Apache-2.0

// Package containerd tests the CNI plugin in a real containerd with a real runc, as
// `make e2e-containerd` starts them: a node that is a set of namespaces on this machine,
// in which containerd, sluiced and the plugin are where they are on a node of a cluster.
// Pods are made through the CRI, as a kubelet does.
//
// It is a module of its own, since the client of the CRI needs libraries that nothing
// else here does. It sees Sluice by its programs only.
package containerd
