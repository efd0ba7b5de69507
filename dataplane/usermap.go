// SPDX-License-Identifier: Apache-2.0

package dataplane

import (
	"bufio"
	"fmt"
	"os"
	"strings"
)

// In a user namespace there may be no user but its root, as `unshare -r` makes it.
// Then the dataplane stays that one: it loses its capabilities all the same, and what
// it might do to other processes of the user, its PID namespace and its system calls
// keep it from.

// ownUser is who the dataplane is to be: DefaultUID if the agent's user namespace has
// it, else the agent's own.
func ownUser() uint32 {
	if mapped("/proc/self/uid_map", DefaultUID) && mapped("/proc/self/gid_map", DefaultUID) {
		return DefaultUID
	}
	return uint32(os.Geteuid())
}

// mapped reports whether a number is in a map of user_namespaces(7). A map that can't be
// read is that of a kernel without them.
func mapped(path string, id uint64) bool {
	f, err := os.Open(path)
	if err != nil {
		return true
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		var inside, outside, n uint64
		if _, err := fmt.Sscan(s.Text(), &inside, &outside, &n); err == nil && id >= inside && id-inside < n {
			return true
		}
	}
	return false
}

// keepsGroups reports whether the user namespace forbids setgroups(2): then there is
// none to give up.
func keepsGroups() bool {
	b, err := os.ReadFile("/proc/self/setgroups")
	return err == nil && strings.TrimSpace(string(b)) == "deny"
}
