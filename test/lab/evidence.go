// SPDX-License-Identifier: Apache-2.0

package lab

import (
	"strings"
	"time"
)

// evidenceLines bounds what is logged of each list.
const evidenceLines = 60

// Evidence logs how the lab's networks stand, so that a failure that is rare can be
// explained from its log alone. It is written down once in a test, since what comes
// later follows from the first fault.
func (l *Lab) Evidence() {
	l.t.Helper()
	if l.evident {
		return
	}
	l.evident = true
	for _, n := range l.spaces {
		for _, line := range []string{"ip -o addr", "ip route", "ip -6 route", "ip neigh"} {
			l.show(n.full+": "+line, n.Try(strings.Fields(line)...))
		}
	}
	if d := l.daemon; d != nil && d.proc != nil {
		for _, line := range []string{"status", "link -s", "uplink", "addr", "route", "-6 route", "neigh", "conntrack -S", "conntrack -L"} {
			l.show("sluice "+line, d.CLI(strings.Fields(line)...))
		}
		l.t.Logf("log of sluiced:\n%s", tail(d.Log()))
	}
}

// show logs what a command printed, without what says nothing.
func (l *Lab) show(what string, r Result) {
	l.t.Helper()
	if text := tail(r.Out + r.Err); text != "" {
		l.t.Logf("%s %s:\n%s", time.Now().Format("15:04:05.000"), what, text)
	}
}

// tail is the last lines of a text.
func tail(text string) string {
	lines := strings.Split(strings.TrimSpace(text), "\n")
	return strings.Join(lines[max(0, len(lines)-evidenceLines):], "\n")
}

// failed reports whether the lab's test has failed; a program's labs don't say.
func (l *Lab) failed() bool {
	t, ok := l.t.(interface{ Failed() bool })
	return ok && t.Failed()
}
