// SPDX-License-Identifier: Apache-2.0

// Package trial is what has to be shown over a long time or at a large scale: that
// connections outlive kills, that a million of them have room, that nothing grows. The
// bench runs it in full and prints tables, the end-to-end tests in short.
package trial
