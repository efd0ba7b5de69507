// SPDX-License-Identifier: Apache-2.0

// Package sluice is the root of Sluice, a user-space network for containers.
// It holds no code of its own: the tests beside this file hold the project to
// its rules (import direction, package docs, references from the docs to code).
package sluice
