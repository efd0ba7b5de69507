// SPDX-License-Identifier: Apache-2.0

// With an assembly file, functions may be declared that are defined elsewhere: those of
// inline_unsafe.go.
