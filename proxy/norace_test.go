// SPDX-License-Identifier: Apache-2.0

//go:build !race

package proxy

// raceEnabled says that sync.Pool drops some of what it is given.
const raceEnabled = false
