// SPDX-License-Identifier: Apache-2.0

package neigh

import "fmt"

// State is that of an entry, RFC 4861 §7.3.2 and ip-neighbour(8). Zero is no
// entry.
type State uint8

// The states.
const (
	None       State = iota // no entry
	Incomplete              // asked for and not answered yet; packets are held
	Reachable               // answered a short while ago
	Stale                   // answered once, or heard; used as it is until it is wanted
	Delay                   // stale and wanted: waits for a sign of life before it is probed
	Probe                   // asked by unicast whether it is still there; used meanwhile
	Failed                  // did not answer
	Permanent               // set by the control path

	numStates // one past the last
)

// stateWords is constant.
var stateWords = [numStates]string{
	None: "none", Incomplete: "incomplete", Reachable: "reachable", Stale: "stale",
	Delay: "delay", Probe: "probe", Failed: "failed", Permanent: "permanent",
}

// String is the state in the word of ip-neighbour(8), lower case.
func (s State) String() string {
	if s >= numStates {
		return "unknown"
	}
	return stateWords[s]
}

// MarshalText makes JSON show the state as its word.
func (s State) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText is the inverse of MarshalText.
func (s *State) UnmarshalText(text []byte) error {
	for i, w := range stateWords {
		if w == string(text) {
			*s = State(i)
			return nil
		}
	}
	return fmt.Errorf("unknown state of a neighbour %q", text)
}

// Usable reports whether packets are sent to the entry's MAC: NUD_VALID of Linux.
func (s State) Usable() bool {
	switch s {
	case Reachable, Stale, Delay, Probe, Permanent:
		return true
	case None, Incomplete, Failed, numStates:
	}
	return false
}

// connected reports whether the neighbour is known to be there: NUD_CONNECTED.
func (s State) connected() bool { return s == Reachable || s == Permanent }
