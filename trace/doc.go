// SPDX-License-Identifier: Apache-2.0

// Package trace is what the packet path tells its operators: why a frame was
// dropped (Reason) and how much each port moved (Counters).
//
// A drop is never silent. Every step that drops a frame names a Reason, and the
// same word is the metric label, the word the command line prints and the word
// of a trace; nothing translates between them.
//
// Counters live in a file on tmpfs that both processes map, so that they
// survive the death of either. The layout is in counters.go.
package trace
