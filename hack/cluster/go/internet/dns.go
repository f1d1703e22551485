package main

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"strings"
	"time"
)

// The domain that the cluster's DNS forwards to this server, and its addresses.
const domain = "example.test"

var publicAddresses = map[string]string{
	"a": "192.31.196.1", "b": "192.31.196.2", "cdn": "192.31.196.3",
}

// resolve returns the address of a name below the domain. `a`, `b` and everything below `cdn` have public addresses.
// `10-1-2-3.ip` has the address 10.1.2.3, and so on for any address.
func resolve(name string) (netip.Addr, bool) {
	name, ok := strings.CutSuffix(strings.ToLower(name), "."+domain)
	if !ok {
		return netip.Addr{}, false
	}
	if encoded, ok := strings.CutSuffix(name, ".ip"); ok {
		address, err := netip.ParseAddr(strings.ReplaceAll(encoded, "-", "."))
		return address, err == nil
	}
	if strings.HasSuffix(name, ".cdn") {
		name = "cdn"
	}
	address, ok := publicAddresses[name]
	if !ok {
		return netip.Addr{}, false
	}
	return netip.MustParseAddr(address), true
}

const (
	headerBytes   = 12
	response      = 0x8400 // an authoritative response
	recursion     = 0x0100
	nameError     = 3
	typeA         = 1
	classInternet = 1
	secondsToLive = 1
)

var errMalformed = errors.New("malformed query")

// reply answers a query with one question: an address, nothing (for another type), or that the name does not exist.
func reply(query []byte) ([]byte, error) {
	if len(query) < headerBytes || binary.BigEndian.Uint16(query[4:]) != 1 {
		return nil, errMalformed
	}
	var labels []string
	at := headerBytes
	for {
		if at >= len(query) {
			return nil, errMalformed
		}
		length := int(query[at])
		at++
		if length == 0 {
			break
		}
		if length > 63 || at+length > len(query) {
			return nil, errMalformed
		}
		labels = append(labels, string(query[at:at+length]))
		at += length
	}
	if at+4 > len(query) {
		return nil, errMalformed
	}
	kind, end := binary.BigEndian.Uint16(query[at:]), at+4
	address, known := resolve(strings.Join(labels, "."))
	out := append([]byte{}, query[:end]...)
	flags := uint16(response) | binary.BigEndian.Uint16(query[2:])&recursion
	if !known {
		flags |= nameError
	}
	binary.BigEndian.PutUint16(out[2:], flags)
	clear(out[6:headerBytes])
	if known && kind == typeA {
		out[7] = 1
		// The name is a pointer to the question's.
		out = append(out, 0xc0, headerBytes, 0, typeA, 0, classInternet, 0, 0, 0, secondsToLive, 0, 4)
		out = append(out, address.AsSlice()...)
	}
	return out, nil
}

func serveDNS(address string) error {
	failed := make(chan error)
	go func() { failed <- serveDNSDatagrams(address) }()
	go func() { failed <- serveDNSStreams(address) }()
	return <-failed
}

func serveDNSDatagrams(address string) error {
	socket, err := net.ListenPacket("udp", net.JoinHostPort(address, "53"))
	if err != nil {
		return err
	}
	buffer := make([]byte, 4096)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		if out, err := reply(buffer[:n]); err == nil {
			socket.WriteTo(out, from) //nolint:errcheck
		}
	}
}

func serveDNSStreams(address string) error {
	listener, err := net.Listen("tcp", net.JoinHostPort(address, "53"))
	if err != nil {
		return err
	}
	for {
		stream, err := listener.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer stream.Close()
			for answerNext(stream) == nil {
			}
		}()
	}
}

func answerNext(stream net.Conn) error {
	stream.SetDeadline(time.Now().Add(10 * time.Second)) //nolint:errcheck
	var length [2]byte
	if _, err := io.ReadFull(stream, length[:]); err != nil {
		return err
	}
	query := make([]byte, binary.BigEndian.Uint16(length[:]))
	if _, err := io.ReadFull(stream, query); err != nil {
		return err
	}
	out, err := reply(query)
	if err != nil {
		return err
	}
	_, err = stream.Write(append(binary.BigEndian.AppendUint16(nil, uint16(len(out))), out...))
	return err
}
