// SPDX-License-Identifier: Apache-2.0

// Package api holds the messages of the daemon's socket, and a client for it.
//
// The daemon speaks HTTP/1.1 with JSON bodies over a Unix stream socket
// (/run/sluice/sluiced.sock, mode 0600: who may open it may do everything).
// Paths begin with a version, /v1/. A request body is decoded strictly: an
// unknown field, trailing data or more than MaxRequest bytes is refused with
// CodeInvalid, so that a misspelt option is never silently ignored. A reply is
// decoded leniently, so that an older client understands a newer daemon.
//
// The JSON of the replies is what `sluice -o json` prints: names are stable
// within /v1, fields are added and never renamed.
//
//	POST /v1/attach      AttachRequest  -> AttachReply
//	POST /v1/detach      DetachRequest  -> Attachment (as it was)
//	POST /v1/apply       ApplyRequest   -> ApplyReply
//	POST /v1/command     CommandRequest -> CommandReply
//	POST /v1/nft         NFTRequest -> NFTReply
//	POST /v1/shutdown    ShutdownRequest-> {}
//	GET  /v1/links       ?network= ?stats=1   -> []Link
//	GET  /v1/networks    -> []Network
//	GET  /v1/neighbours  ?network= ?namespace= ?words=  -> []Neighbour
//	GET  /v1/fdb         ?network= ?namespace= ?words=  -> []FDBEntry
//	GET  /v1/addresses   ?network=  -> []Address
//	GET  /v1/sockets     ?network= ?from=  -> Page of Socket
//	GET  /v1/namespaces  -> []Namespace
//	GET  /v1/routes      ?namespace= ?words=  -> []Route
//	GET  /v1/route/get   ?namespace= ?words=  -> RouteGet
//	GET  /v1/rules       ?namespace= ?words=  -> []Rule
//	GET  /v1/vrfs        ?namespace= ?words=  -> []VRF
//	GET  /v1/uplinks     ?namespace= ?words= ?stats=1  -> []Uplink
//	GET  /v1/devices     ?namespace= ?words=  -> []Device
//	GET  /v1/vlans       ?namespace= ?words=  -> []VLANPort
//	GET  /v1/mdb         ?namespace= ?words=  -> []MDBEntry
//	GET  /v1/connections ?namespace= ?words= ?from= ?lines=1  -> Page of Connection
//	POST /v1/connections/delete  DeleteConnectionsRequest -> Page of Connection
//	GET  /v1/connections/stats   ?namespace= ?words=  -> ConnectionStats
//	GET  /v1/connections/events  ?namespace= ?words= ?from= ?lines=1  -> Page of ConnectionEvent
//	GET  /v1/nat         ?namespace=  -> []NATRule
//	GET  /v1/nat/bindings ?namespace=  -> []Binding
//	GET  /v1/published   ?namespace=  -> []Published
//	GET  /v1/services    ?namespace=  -> []Service
//	GET  /v1/status      -> Status
//
// The words are those that follow `show` in ip(8) and bridge(8), or the options of
// conntrack(8), with a space between each two.
//
// A Page is a part of a list that may be very long, an entry in each line: JSON, or what
// conntrack(8) would print. Its headers Sluice-Entries, Sluice-Next and Sluice-Lost say
// how many they are, what to ask with for the next part, and how many events are lost.
//
// Any answer but 2xx carries an Error as its body.
//
// This package imports nothing of the project, so that the command-line tool,
// the CNI plugin and the tests see the daemon only through it. MAC addresses
// are therefore text here (aa:bb:cc:dd:ee:ff, lower case).
package api
