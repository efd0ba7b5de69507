// SPDX-License-Identifier: Apache-2.0

// Package flow remembers what the slow path decided for a flow: Key names the
// flow that a frame belongs to, Cache holds one worker's decisions.
//
// An entry is right or absent. A key holds every header field that the slow
// path may look at for a cacheable frame, an entry is good for one generation
// of the configuration only, and the tables that a decision used (such as the
// forwarding database) are asked by the entry's owner whether they still say
// the same.
package flow
