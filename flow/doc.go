// SPDX-License-Identifier: Apache-2.0

// Package flow remembers what the slow path decided for a flow: Key names the
// flow that a frame belongs to, Cache holds one worker's decisions.
//
// An entry is right or absent. A decision may be remembered only if it looked at
// nothing in the frame but what the key holds; an entry is good for one
// generation of the configuration; and the tables that a decision used (such as
// the forwarding database) are asked by the entry's owner whether they still
// say the same.
package flow
