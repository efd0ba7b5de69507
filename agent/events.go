// SPDX-License-Identifier: Apache-2.0

package agent

import (
	"context"
	"log/slog"

	"sluice/dataplane"
)

// consume logs what a dataplane tells, until it is gone. The text comes from the
// sandbox: it is quoted by the log's handler and decides nothing.
func (a *Agent) consume(c *dataplane.Client) {
	log := a.log.With("dataplane", c.PID())
	a.wakeRuleLogs() // who was asked before may have died over it
	for e := range c.Events() {
		if e.Lost > 0 {
			log.Warn("events of the dataplane were lost", "count", e.Lost)
		}
		switch e.Kind {
		case dataplane.EventPortDown:
			// The interface may be gone; the kernel knows better than the sandbox.
			a.wakeReaper()
		case dataplane.EventLearned:
			a.wakeLearner()
		case dataplane.EventRuleLog:
			a.wakeRuleLogs()
		case dataplane.EventLog:
			log.LogAttrs(context.Background(), e.Level, "dataplane says", eventAttrs(&e)...)
		}
	}
}

func eventAttrs(e *dataplane.Event) []slog.Attr {
	return []slog.Attr{slog.String("text", e.Message), slog.Any("attrs", e.Attrs), slog.Time("at", e.Time)}
}
