// SPDX-License-Identifier: Apache-2.0

package netstack

import (
	"encoding/json"
	"fmt"
	"strings"

	"sluice/routing"
)

// RouteList is routes that travel as text, a line of ip-route(8) each. There may be
// hundreds of thousands, of which the bytes and the values then are a fraction of
// what they would be field by field.
type RouteList []routing.Route

// MarshalJSON is a list of the routes as text.
func (l RouteList) MarshalJSON() ([]byte, error) {
	text := make([]string, len(l))
	for i := range l {
		text[i] = l[i].String()
		if p := l[i].Prefix; p.Bits() == 0 && p.Addr().Is6() {
			// A line of ip-route(8) does not say which default it means, if no address does.
			text[i] = strings.Replace(text[i], "default", p.String(), 1)
		}
	}
	return json.Marshal(text)
}

// UnmarshalJSON reads the list. What a route's text leaves out is not stated in it
// either: routing.OpRestore completes it.
func (l *RouteList) UnmarshalJSON(b []byte) error {
	var text []string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	*l = make(RouteList, len(text))
	for i, line := range text {
		c, err := routing.ParseRoute("add " + line)
		if err != nil {
			return fmt.Errorf("route %d: %w", i, err)
		}
		(*l)[i] = *c.Route
	}
	return nil
}
