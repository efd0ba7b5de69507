// SPDX-License-Identifier: Apache-2.0

// Package e2e holds the tests from outside: the built binaries, real network
// namespaces, real veth pairs, and the tools that a user would take. They are
// written in the language of test/lab; each has its network drawn at its head,
// fits a screen, and leaves nothing behind.
package e2e
