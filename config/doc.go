// SPDX-License-Identifier: Apache-2.0

// Package config reads the file that declares a node's namespaces, networks and uplinks.
//
// The text is YAML, decoded strictly into a raw type and then validated into
// Config, whose values need no further check. Strict means: an unknown field, a
// field given twice, a second document, an anchor or an alias is an error. Every
// error is an *Error that names line, field and what was expected.
//
// What the fields mean, with their defaults and ranges, is told in
// testdata/reference.yaml, which a test parses.
//
// Subnets of networks in different namespaces or VRFs may overlap; a network has at
// most one of each family.
package config
