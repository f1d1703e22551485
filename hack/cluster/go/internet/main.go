// Command internet is the test cluster's stand-in for the internet: servers for HTTP, TLS, DNS and UDP. It runs in a network
// namespace of the node that has public, private and metadata addresses, see ../../network/internet.sh.
package main

import (
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	maxNotes     = 100_000
	maxNoteBytes = 64
)

// notes are the first bytes of each UDP datagram that arrived, so that tests see what a sender sent even if it gets no response.
type notes struct {
	sync.Mutex
	all []string
}

func (n *notes) add(note []byte) {
	n.Lock()
	defer n.Unlock()
	if len(n.all) < maxNotes {
		n.all = append(n.all, string(note[:min(len(note), maxNoteBytes)]))
	}
}

func (n *notes) startingWith(prefix string) []string {
	n.Lock()
	defer n.Unlock()
	found := []string{}
	for _, note := range n.all {
		if strings.HasPrefix(note, prefix) {
			found = append(found, note)
		}
	}
	return found
}

// answer is the response to every request: what the server saw of it.
type answer struct {
	Host       string `json:"host"`
	ServerName string `json:"serverName,omitempty"`
	Address    string `json:"address"`
	Path       string `json:"path"`
}

func handler(ca *authority, seen *notes) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		local, _ := r.Context().Value(http.LocalAddrContextKey).(net.Addr)
		a := answer{Host: r.Host, Path: r.URL.Path, Address: local.String()}
		if r.TLS != nil {
			a.ServerName = r.TLS.ServerName
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(a) //nolint:errcheck
	})
	// The certificate of the authority.
	mux.HandleFunc("/ca.pem", func(w http.ResponseWriter, _ *http.Request) { w.Write(ca.pem) }) //nolint:errcheck
	// Notes that begin with the query.
	mux.HandleFunc("/notes", func(w http.ResponseWriter, r *http.Request) {
		json.NewEncoder(w).Encode(seen.startingWith(r.URL.RawQuery)) //nolint:errcheck
	})
	mux.HandleFunc("/bytes/{count}", func(w http.ResponseWriter, r *http.Request) {
		count, err := strconv.ParseInt(r.PathValue("count"), 10, 64)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		w.Header().Set("Content-Length", strconv.FormatInt(count, 10))
		io.CopyN(w, zeros{}, count) //nolint:errcheck
	})
	return mux
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// echo answers each datagram to an address of this machine from that address, which needs a socket for each of them.
func echo(address string, seen *notes) error {
	socket, err := net.ListenPacket("udp", net.JoinHostPort(address, "7"))
	if err != nil {
		return err
	}
	buffer := make([]byte, 2048)
	for {
		n, from, err := socket.ReadFrom(buffer)
		if err != nil {
			return err
		}
		seen.add(buffer[:n])
		socket.WriteTo(buffer[:n], from) //nolint:errcheck
	}
}

func addresses() ([]string, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	var found []string
	for _, a := range all {
		if ip := a.(*net.IPNet).IP; !ip.IsLoopback() && !(ip.To4() == nil && ip.IsLinkLocalUnicast()) {
			found = append(found, ip.String())
		}
	}
	return found, nil
}

func main() {
	ca, err := newAuthority()
	if err != nil {
		log.Fatal(err)
	}
	all, err := addresses()
	if err != nil {
		log.Fatal(err)
	}
	seen := &notes{}
	failed := make(chan error)
	serve := func(what string, run func() error) {
		go func() { failed <- fmt.Errorf("%s: %w", what, run()) }()
	}
	plain := &http.Server{Addr: ":80", Handler: handler(ca, seen), ReadHeaderTimeout: 10 * time.Second}
	secure := &http.Server{
		Addr: ":443", Handler: plain.Handler, ReadHeaderTimeout: 10 * time.Second,
		TLSConfig: &tls.Config{GetCertificate: ca.certificate},
	}
	serve("HTTP", plain.ListenAndServe)
	serve("TLS", func() error { return secure.ListenAndServeTLS("", "") })
	for _, address := range all {
		serve("DNS on "+address, func() error { return serveDNS(address) })
		serve("UDP on "+address, func() error { return echo(address, seen) })
	}
	log.Fatal(<-failed)
}
