// SPDX-License-Identifier: Apache-2.0

package api

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"unicode"
)

// Bounds of the messages, in bytes. A reply may list hundreds of thousands of
// routes; a request is at most one file of networks, of 32 MB and its escapes.
const (
	MaxRequest = 64 << 20
	MaxReply   = 512 << 20
)

// The daemon's paths, and where its socket is unless told otherwise.
const (
	PathAttach     = "/v1/attach"
	PathDetach     = "/v1/detach"
	PathApply      = "/v1/apply"
	PathCommand    = "/v1/command"
	PathShutdown   = "/v1/shutdown"
	PathLinks      = "/v1/links"
	PathNetworks   = "/v1/networks"
	PathNetworkDel = "/v1/networks/delete"
	PathNeighbours = "/v1/neighbours"
	PathFDB        = "/v1/fdb"
	PathAddresses  = "/v1/addresses"
	PathSockets    = "/v1/sockets"
	PathStatus     = "/v1/status"
	PathNamespaces = "/v1/namespaces"
	PathRoutes     = "/v1/routes"
	PathRouteGet   = "/v1/route/get"
	PathRules      = "/v1/rules"
	PathVRFs       = "/v1/vrfs"
	PathUplinks    = "/v1/uplinks"
	PathDevices    = "/v1/devices"
	PathVLANs      = "/v1/vlans"
	PathMDB        = "/v1/mdb"
	PathQueueing   = "/v1/queueing"
	PathTrees      = "/v1/trees"

	PathNFT         = "/v1/nft"
	PathNFTHistory  = "/v1/nft/history"
	PathNFTEvents   = "/v1/nft/events"
	PathNFTExplain  = "/v1/nft/explain"
	PathNFTDiff     = "/v1/nft/diff"
	PathNFTUndo     = "/v1/nft/undo"
	PathNFTConfirm  = "/v1/nft/confirm"
	PathConnections = "/v1/connections"
	PathConnDelete  = "/v1/connections/delete"
	PathConnStats   = "/v1/connections/stats"
	PathConnEvents  = "/v1/connections/events"
	PathNAT         = "/v1/nat"
	PathBindings    = "/v1/nat/bindings"
	PathPublished   = "/v1/published"
	PathDNSNames    = "/v1/dns/names"
	PathDNSStats    = "/v1/dns/stats"
	PathServices    = "/v1/services"

	DefaultSocket = "/run/sluice/sluiced.sock"
)

// ReadRequest decodes one JSON value strictly into v. Its error is an *Error
// with CodeInvalid that names an unknown or ill-typed field.
func ReadRequest(r io.Reader, v any) error {
	limited := &io.LimitedReader{R: r, N: MaxRequest + 1}
	d := json.NewDecoder(limited)
	d.DisallowUnknownFields()
	err := d.Decode(v)
	if err == nil {
		if _, err = d.Token(); errors.Is(err, io.EOF) {
			return nil
		}
		err = errors.New("more than one value in the body")
	}
	if limited.N <= 0 {
		err = fmt.Errorf("the body is larger than %d bytes", MaxRequest)
	}
	return invalidJSON(err)
}

// invalidJSON turns an error of encoding/json into one that names the field.
func invalidJSON(err error) *Error {
	e := &Error{Code: CodeInvalid, Message: "request: " + strings.TrimPrefix(err.Error(), "json: ")}
	if t, ok := errors.AsType[*json.UnmarshalTypeError](err); ok {
		e.Field = t.Field
		e.Message = fmt.Sprintf("request: field %q must be %s, not %s", t.Field, t.Type, t.Value)
	}
	if _, field, ok := strings.Cut(err.Error(), "unknown field "); ok {
		e.Field = strings.Trim(field, `"`)
	}
	return e
}

// WriteReply answers a request with v as its JSON body.
func WriteReply(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	// The only possible error is that the client went away.
	_ = json.NewEncoder(w).Encode(v)
}

// WriteError answers a request with err: as it is if it is, or wraps, an *Error,
// else as CodeInternal with err's text. Context that wraps an *Error is kept in
// the message. What a terminal would not print is replaced by U+FFFD, for parts
// of a message may come from the sandbox or from a file.
func WriteError(w http.ResponseWriter, err error) {
	out := Error{Code: CodeInternal, Message: err.Error()}
	if e, ok := errors.AsType[*Error](err); ok {
		out.Code, out.Field, out.Index = e.Code, e.Field, e.Index
	}
	out.Field, out.Message = Printable(out.Field), Printable(out.Message)
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(out.Code.Status())
	_ = json.NewEncoder(w).Encode(&out)
}

// Printable keeps what may be shown, and the ends of lines.
func Printable(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) || r == '\n' || r == '\t' {
			return r
		}
		return unicode.ReplacementChar
	}, s)
}

// readReply decodes the daemon's answer into out.
func readReply(resp *http.Response, out any) error {
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxReply)).Decode(out); err != nil {
		return fmt.Errorf("reply of sluiced: %w", err)
	}
	return nil
}

// readRefusal returns the error that the daemon answered with.
func readRefusal(resp *http.Response) error {
	e := new(Error)
	if err := json.NewDecoder(io.LimitReader(resp.Body, MaxReply)).Decode(e); err != nil || e.Code == "" {
		return fmt.Errorf("reply of sluiced: HTTP status %s", resp.Status)
	}
	return e
}
