// SPDX-License-Identifier: Apache-2.0

// Package dataplane is the sandboxed process that owns the packets, and both
// ends of the control socket between it and its agent.
package dataplane
