// SPDX-License-Identifier: Apache-2.0

// Package conntracktest asks the kernel what connections it tracks: the oracle of
// tests that compare. Only tests import it.
package conntracktest
