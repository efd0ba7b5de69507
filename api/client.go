// SPDX-License-Identifier: Apache-2.0

package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// Client talks to one daemon. Safe for concurrent use. Its errors are *Error for
// what the daemon refused, ErrDaemonDown and ErrPermission (both wrapped with the
// socket's path) for what never reached it, and the context's.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient returns a client of the daemon that listens on socket. Empty means
// DefaultSocket. It connects at the first request. Close it when done.
func NewClient(socket string) *Client {
	if socket == "" {
		socket = DefaultSocket
	}
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", socket)
	}
	// A connection for each request: it costs microseconds here, and a request
	// that meets a kept connection just as the daemon restarts would fail.
	t := &http.Transport{DialContext: dial, DisableKeepAlives: true}
	return &Client{socket: socket, http: &http.Client{Transport: t}}
}

// Close drops connections that are not in use. The client may still be used.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Attach gives a container an interface. When it returns, the interface forwards.
func (c *Client) Attach(ctx context.Context, r *AttachRequest) (*AttachReply, error) {
	return post[AttachReply](ctx, c, PathAttach, r)
}

// Detach takes an attachment away and returns what it was.
func (c *Client) Detach(ctx context.Context, r *DetachRequest) (*Attachment, error) {
	return post[Attachment](ctx, c, PathDetach, r)
}

// Apply declares the networks and returns what that changed.
func (c *Client) Apply(ctx context.Context, r *ApplyRequest) ([]Change, error) {
	reply, err := post[ApplyReply](ctx, c, PathApply, r)
	if err != nil {
		return nil, err
	}
	return reply.Changes, nil
}

// Command carries out commands of ip(8) and bridge(8) as one transaction.
func (c *Client) Command(ctx context.Context, r *CommandRequest) (*CommandReply, error) {
	return post[CommandReply](ctx, c, PathCommand, r)
}

// Shutdown ends the daemon, after its answer.
func (c *Client) Shutdown(ctx context.Context, r *ShutdownRequest) error {
	_, err := post[struct{}](ctx, c, PathShutdown, r)
	return err
}

// Links returns the attachments of a network (empty: of all), by port, with
// their counters if asked.
func (c *Client) Links(ctx context.Context, network string, stats bool) ([]Link, error) {
	return list[Link](ctx, c, PathLinks, query(network, stats))
}

// Networks returns the declared networks by name, with the counters of their
// local ports if asked.
func (c *Client) Networks(ctx context.Context, stats bool) ([]Network, error) {
	return list[Network](ctx, c, PathNetworks, query("", stats))
}

// DeleteNetwork takes away what a network configuration of CNI has declared, and returns
// what that changed.
func (c *Client) DeleteNetwork(ctx context.Context, r *DeleteNetworkRequest) ([]Change, error) {
	reply, err := post[ApplyReply](ctx, c, PathNetworkDel, r)
	if err != nil {
		return nil, err
	}
	return reply.Changes, nil
}

// Neighbours returns the gateways' ARP and ND tables.
func (c *Client) Neighbours(ctx context.Context, network string) ([]Neighbour, error) {
	return list[Neighbour](ctx, c, PathNeighbours, query(network, false))
}

// FDB returns the bridges' forwarding tables.
func (c *Client) FDB(ctx context.Context, network string) ([]FDBEntry, error) {
	return list[FDBEntry](ctx, c, PathFDB, query(network, false))
}

// Addresses returns the addresses of gateways and attachments.
func (c *Client) Addresses(ctx context.Context, network string) ([]Address, error) {
	return list[Address](ctx, c, PathAddresses, query(network, false))
}

// Sockets returns the endpoints of the networks' host stacks, and connections by socket
// uplinks, in the order of the networks' names. They come in parts.
func (c *Client) Sockets(ctx context.Context, network string) ([]Socket, error) {
	all := []Socket{}
	for from := uint64(0); ; {
		q := query(network, false)
		q.Set("from", strconv.FormatUint(from, 10))
		p, err := c.page(ctx, http.MethodGet, PathSockets+"?"+q.Encode(), nil)
		if err != nil {
			return nil, err
		}
		for line := range bytes.Lines(p.Body) {
			var s Socket
			if err := json.Unmarshal(line, &s); err != nil {
				return nil, fmt.Errorf("reply of sluiced: %w", err)
			}
			all = append(all, s)
		}
		if p.Next <= from {
			slices.SortStableFunc(all, func(a, b Socket) int { return strings.Compare(a.Network, b.Network) })
			return all, nil
		}
		from = p.Next
	}
}

// Namespaces returns the namespaces by name.
func (c *Client) Namespaces(ctx context.Context) ([]Namespace, error) {
	return list[Namespace](ctx, c, PathNamespaces, url.Values{})
}

// Routes returns routes, as `ip route show` selects them.
func (c *Client) Routes(ctx context.Context, q ShowQuery) ([]Route, error) {
	return list[Route](ctx, c, PathRoutes, q.values())
}

// Rules returns the rules of a family, IPv4 if the words don't say.
func (c *Client) Rules(ctx context.Context, q ShowQuery) ([]Rule, error) {
	return list[Rule](ctx, c, PathRules, q.values())
}

// Neigh returns neighbours, as `ip neigh show` selects them.
func (c *Client) Neigh(ctx context.Context, q ShowQuery) ([]Neighbour, error) {
	return list[Neighbour](ctx, c, PathNeighbours, q.values())
}

// VRFs returns VRFs, or the one that the words name.
func (c *Client) VRFs(ctx context.Context, q ShowQuery) ([]VRF, error) {
	return list[VRF](ctx, c, PathVRFs, q.values())
}

// Uplinks returns the ways out of namespaces, or the one that the words name, with the
// counters of the host's port if asked.
func (c *Client) Uplinks(ctx context.Context, q ShowQuery, stats bool) ([]Uplink, error) {
	v := q.values()
	if stats {
		v.Set("stats", "1")
	}
	return list[Uplink](ctx, c, PathUplinks, v)
}

// Devices returns networks, links, VRFs and ports, as `ip link show` selects them.
func (c *Client) Devices(ctx context.Context, q ShowQuery) ([]Device, error) {
	return list[Device](ctx, c, PathDevices, q.values())
}

// Stations returns the bridges' forwarding tables, as `bridge fdb show` selects.
func (c *Client) Stations(ctx context.Context, q ShowQuery) ([]FDBEntry, error) {
	return list[FDBEntry](ctx, c, PathFDB, q.values())
}

// VLANs returns the ports that filter VLANs, as `bridge vlan show` selects them.
func (c *Client) VLANs(ctx context.Context, q ShowQuery) ([]VLANPort, error) {
	return list[VLANPort](ctx, c, PathVLANs, q.values())
}

// MDB returns members of multicast groups, as `bridge mdb show` selects them.
func (c *Client) MDB(ctx context.Context, q ShowQuery) ([]MDBEntry, error) {
	return list[MDBEntry](ctx, c, PathMDB, q.values())
}

// Queueing returns what tc(8) would print of a port. The words are those behind tc.
func (c *Client) Queueing(ctx context.Context, q ShowQuery) (*Queueing, error) {
	out := new(Queueing)
	err := c.do(ctx, http.MethodGet, PathQueueing+"?"+q.values().Encode(), nil, out)
	return out, err
}

// RouteGet returns where a packet would go. Its words are those of `ip route get`.
func (c *Client) RouteGet(ctx context.Context, q ShowQuery) (*RouteGet, error) {
	out := new(RouteGet)
	if err := c.do(ctx, http.MethodGet, PathRouteGet+"?"+q.values().Encode(), nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// values are the parameters that say what to show.
func (q ShowQuery) values() url.Values {
	v := url.Values{}
	if q.Namespace != "" {
		v.Set("namespace", q.Namespace)
	}
	if q.Port != "" {
		v.Set("port", q.Port)
	}
	if len(q.Words) > 0 {
		v.Set("words", strings.Join(q.Words, " "))
	}
	return v
}

// Status returns how the daemon and its dataplane are.
func (c *Client) Status(ctx context.Context) (*Status, error) {
	out := new(Status)
	if err := c.do(ctx, http.MethodGet, PathStatus, nil, out); err != nil {
		return nil, err
	}
	return out, nil
}

// query builds the parameters that the lists share.
func query(network string, stats bool) url.Values {
	q := url.Values{}
	if network != "" {
		q.Set("network", network)
	}
	if stats {
		q.Set("stats", "1")
	}
	return q
}

func post[T any](ctx context.Context, c *Client, path string, in any) (*T, error) {
	body, err := json.Marshal(in)
	if err != nil {
		return nil, err
	}
	out := new(T)
	if err := c.do(ctx, http.MethodPost, path, body, out); err != nil {
		return nil, err
	}
	return out, nil
}

func list[T any](ctx context.Context, c *Client, path string, q url.Values) ([]T, error) {
	if len(q) > 0 {
		path += "?" + q.Encode()
	}
	var out []T
	err := c.do(ctx, http.MethodGet, path, nil, &out)
	return out, err
}

// do makes one request whose answer is one JSON value.
func (c *Client) do(ctx context.Context, method, path string, body []byte, out any) error {
	return c.ask(ctx, method, path, body, func(resp *http.Response) error { return readReply(resp, out) })
}

// ask makes one request. The host name in the URL is a formality: the dialler
// goes to the socket.
func (c *Client) ask(ctx context.Context, method, path string, body []byte, read func(*http.Response) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://sluiced"+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return c.dialError(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return readRefusal(resp)
	}
	return read(resp)
}

// dialError tells a daemon that is not there from one that may not be spoken to.
// http wraps the errno deep; errors.Is finds it.
func (c *Client) dialError(err error) error {
	switch {
	case errors.Is(err, fs.ErrPermission):
		return fmt.Errorf("%s: %w", c.socket, ErrPermission)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: %w", c.socket, ErrDaemonDown)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		return fmt.Errorf("%s: %w", c.socket, u.Err)
	}
	return err
}
