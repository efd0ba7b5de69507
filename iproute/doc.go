// SPDX-License-Identifier: Apache-2.0

// Package iproute reads the words of ip(8) and bridge(8) for all but routes and
// rules, which package routing reads: static neighbours, devices, VRFs, settings of
// ports, and entries of the tables of a bridge.
//
// It knows words and no state: whether a device is there, or an entry can be
// deleted, is for the caller to say. What it returns is in one spelling, so that
// equal things are equal text.
//
// Settings are kept as text, word by word, since they are written to the state
// file: a number that a later version gives another meaning would be read wrong.
package iproute
