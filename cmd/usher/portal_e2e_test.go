package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/link/lab"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// The internet of these tests: any site, a payment site known by its address,
// and one known by its name, which a name server tells.
const (
	siteAny    = miniature.InternetIP
	siteByAddr = "203.0.113.20"
	siteByName = "203.0.113.21"
	payName    = "pay.example.net"
)

// startSites opens the sites, and a name server on the internet's first address.
func (w *world) startSites(t *testing.T) *lab.Process {
	t.Helper()
	for _, a := range []string{siteByAddr, siteByName} {
		require.NoError(t, w.Internet.IP("addr", "add", a+"/24", "dev", "eth0"))
	}
	for _, a := range []string{siteAny, siteByAddr, siteByName} {
		for _, port := range []string{"80", "443"} {
			ln, err := w.Internet.Listen(a + ":" + port)
			require.NoError(t, err)
			w.Serve(ln, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				_, _ = fmt.Fprintf(rw, "the real site at %s", a)
			}))
		}
	}
	return w.startDNS(t)
}

func (w *world) startDNS(t *testing.T) *lab.Process {
	t.Helper()
	p, err := w.Internet.Start("dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--no-resolv", "--no-hosts", "--pid-file=",
		"--user=root", "--listen-address="+siteAny, "--bind-interfaces", "--log-facility=-", "--address=/"+payName+"/"+siteByName)
	require.NoError(t, err)
	eventually(t, 10*time.Second, "dnsmasq answers", func() (bool, error) {
		_, err := lookupFrom(t.Context(), w.Internet, payName)
		return err == nil, nil
	})
	return p
}

// lookupFrom asks the name server from a host, by UDP as its programs do.
func lookupFrom(ctx context.Context, h *lab.Host, name string) ([]netip.Addr, error) {
	r := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (conn net.Conn, err error) {
		derr := h.Do(func() error {
			conn, err = (&net.Dialer{}).DialContext(ctx, "udp4", siteAny+":53")
			return err
		})
		return conn, derr
	}}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	return r.LookupNetIP(ctx, "ip4", name+".")
}

// answer is what curl got.
type answer struct {
	code     string
	location string
	state    string
	body     string
	took     time.Duration
	err      error
}

// curl asks for a URL from a host; at says where the name in it is.
func curl(t *testing.T, h *lab.Host, url, at string, args ...string) answer {
	t.Helper()
	host, port, _ := strings.Cut(strings.SplitN(url, "/", 4)[2], ":")
	if port == "" {
		port = map[bool]string{true: "443", false: "80"}[strings.HasPrefix(url, "https")]
	}
	began := time.Now()
	out, err := h.Output(t.Context(), "curl", append([]string{"-sS", "--max-time", "5", "--noproxy", "*", "--resolve", host + ":" + port + ":" + at,
		"-H", "Accept: text/html,*/*;q=0.8", "-w", "\n%{http_code} %{redirect_url} %header{portal-state}", url}, args...)...)
	a := answer{took: time.Since(began), err: err}
	i := strings.LastIndex(out, "\n")
	if err == nil && i >= 0 {
		a.body = out[:i]
		f := strings.Split(out[i+1:], " ")
		a.code, a.location, a.state = f[0], f[1], f[2]
	}
	return a
}

// portalPair writes a certificate for portal.example.net and its key.
func portalPair(t *testing.T, dir string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "portal.example.net"}, DNSNames: []string{"portal.example.net"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, private.Public(), private)
	require.NoError(t, err)
	keyDER, err := x509.MarshalECPrivateKey(private)
	require.NoError(t, err)
	cert, key = filepath.Join(dir, "portal.crt"), filepath.Join(dir, "portal.key")
	require.NoError(t, os.WriteFile(cert, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), 0o600))
	require.NoError(t, os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER}), 0o600))
	return cert, key
}

// A paused customer in the flesh: sees why, reaches the payment sites, and is
// back as soon as the ERP says so. The neighbour notices nothing.
func TestKernelPortal(t *testing.T) {
	labtest.Need(t, "curl", "dnsmasq")
	cert, key := portalPair(t, t.TempDir())
	w := startWorld(t, miniature.Options{Homes: 2, Extra: fmt.Sprintf(`portal:
  listen: 10.0.0.1:8080
  https: {listen: "10.0.0.1:8443", url: "https://portal.example.net:8443", cert_file: %s, key_file: %s}
  pay_url: http://%s/?account={customer}
acl:
  pause: {garden: [%s, %s]}
  resolvers: [%s]
  resolve_interval: 10s
`, cert, key, payName, siteByAddr, payName, siteAny)})
	dns := w.startSites(t)
	require.NoError(t, w.StartAgent(t.Context()))
	var clients []*lab.Process
	for _, h := range w.Homes {
		p, err := w.DHCPClient(h)
		require.NoError(t, err)
		clients = append(clients, p)
		eventually(t, 15*time.Second, "udhcpc is bound", func() (bool, error) { return strings.Contains(p.Log(), "bound ip="+h.IP.String()+" "), nil })
	}
	customer, id := w.Homes[0].Host, provision.SubscriberID(w.Homes[0].ID)
	neighbour, err := miniature.StartFlow(w.Homes[1].Host)
	require.NoError(t, err)
	defer neighbour.Close()
	set := func(st provision.State) {
		t.Helper()
		_, err := w.Client.SetState(t.Context(), id, st)
		require.NoError(t, err)
	}
	real := func(a answer, site string) {
		t.Helper()
		require.NoError(t, a.err)
		require.Equal(t, "200", a.code)
		require.Equal(t, "the real site at "+site, a.body)
	}
	captive := func() (captive bool) {
		t.Helper()
		a := curl(t, customer, "https://portal.example.net:8443/captive-portal/api", "10.0.0.1", "--cacert", cert)
		require.NoError(t, a.err)
		var body map[string]any
		require.NoError(t, json.Unmarshal([]byte(a.body), &body), a.body)
		require.Equal(t, "https://portal.example.net:8443/", body["user-portal-url"])
		return body["captive"].(bool)
	}
	eventually(t, 10*time.Second, "the name of the garden is known", func() (bool, error) {
		return len(w.status(t).Garden.Paused) == 2, nil
	})

	real(curl(t, customer, "http://any.example.org/", siteAny), siteAny)
	require.False(t, captive())

	t.Run("paused", func(t *testing.T) {
		set(provision.StatePause)
		a := curl(t, customer, "http://any.example.org/deep/path?x=1", siteAny)
		require.NoError(t, a.err)
		require.Equal(t, "511", a.code)
		require.Equal(t, "paused", a.state)
		for _, text := range []string{"Internet access is paused", fmt.Sprintf(">%d<", id), w.Homes[0].IP.String(), fmt.Sprintf("http://%s/?account=%d", payName, id)} {
			require.Contains(t, a.body, text)
		}
		a = curl(t, customer, "http://any.example.org/", siteAny, "-X", "POST", "-d", "x=1", "-H", "Accept-Language: uk")
		require.Equal(t, "511", a.code)
		require.Contains(t, a.body, "призупинено")

		a = curl(t, customer, "http://connectivitycheck.gstatic.com/generate_204", siteAny)
		require.Equal(t, "302", a.code)
		require.Equal(t, "https://portal.example.net:8443/", a.location)
		a = curl(t, customer, a.location, "10.0.0.1", "--cacert", cert)
		require.Equal(t, "200", a.code)
		require.Contains(t, a.body, "Internet access is paused")
		require.True(t, captive())

		a = curl(t, customer, "https://any.example.org/", siteAny)
		require.ErrorContains(t, a.err, "exit status 7", "refused")
		require.Less(t, a.took, 2*time.Second, "at once")
	})
	t.Run("a wild computer harms nobody", func(t *testing.T) {
		flood, err := customer.Start("curl", "-sS", "--parallel", "--parallel-immediate", "--parallel-max", "200", "-o", "/dev/null", "http://"+siteAny+"/[1-20000]")
		require.NoError(t, err)
		defer flood.Kill()
		eventually(t, 10*time.Second, "the portal refuses some of it", func() (bool, error) {
			out, err := w.Router.Output(t.Context(), "curl", "-sS", "http://"+miniature.ConsoleAddr+"/metrics")
			return strings.Contains(out, "usher_portal_connections_refused_total") && !strings.Contains(out, `usher_portal_connections_refused_total{bound="source"} 0`), err
		})
		a := curl(t, w.Homes[1].Host, "http://10.0.0.1:8080/", "10.0.0.1")
		require.Equal(t, "200", a.code, "others see their page")
		require.NoError(t, clients[1].Signal(syscall.SIGUSR1))
		eventually(t, 10*time.Second, "DHCP goes on", func() (bool, error) {
			return strings.Contains(clients[1].Log(), "renew ip="+w.Homes[1].IP.String()+" "), nil
		})
		select {
		case <-flood.Done():
			t.Fatal("the flood was over too soon: " + miniature.LastLines(flood.Log(), 2))
		default:
		}
	})
	t.Run("the garden is open", func(t *testing.T) {
		real(curl(t, customer, "http://"+siteByAddr+"/", siteByAddr), siteByAddr)
		found, err := lookupFrom(t.Context(), customer, payName)
		require.NoError(t, err, "DNS is open")
		require.Equal(t, siteByName, found[0].String())
		real(curl(t, customer, "http://"+payName+"/", siteByName), siteByName)
	})
	t.Run("resumed", func(t *testing.T) {
		set(provision.StateActive)
		began := time.Now()
		real(curl(t, customer, "http://any.example.org/", siteAny), siteAny)
		require.Less(t, time.Since(began), time.Second)
		require.False(t, captive())
		a := curl(t, customer, "http://10.0.0.1:8080/", "10.0.0.1")
		require.Equal(t, "200", a.code)
		require.Contains(t, a.body, "You are online")
	})
	t.Run("stopped customers reach nothing", func(t *testing.T) {
		set(provision.StateStop)
		a := curl(t, customer, "http://"+siteByAddr+"/", siteByAddr, "--max-time", "1")
		require.Error(t, a.err)
		set(provision.StatePause)
	})
	t.Run("a template that is broken leaves the page", func(t *testing.T) {
		page := filepath.Join(w.Dir, "page.html")
		config, err := os.ReadFile(w.ConfigPath())
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(w.ConfigPath(), []byte(strings.Replace(string(config), "portal:\n", "portal:\n  template: "+page+"\n", 1)), 0o600))
		require.NoError(t, os.WriteFile(page, []byte("<h1>our own page, {{.Customer}}</h1>"), 0o600))
		reload := func(text, lastError string) {
			t.Helper()
			before := w.status(t).Config
			require.NoError(t, w.Agent.Signal(syscall.SIGHUP))
			eventually(t, 5*time.Second, "the configuration is loaded", func() (bool, error) {
				c := w.status(t).Config
				return c.LastError != before.LastError || c.LoadedAt != before.LoadedAt, nil
			})
			require.Contains(t, w.status(t).Config.LastError, lastError)
			a := curl(t, customer, "http://any.example.org/", siteAny)
			require.Equal(t, "511", a.code)
			require.Contains(t, a.body, text)
		}
		reload(fmt.Sprintf("our own page, %d", id), "")
		require.NoError(t, os.WriteFile(page, []byte("<h1>{{.Balance}}</h1>"), 0o600))
		reload(fmt.Sprintf("our own page, %d", id), "portal.template: "+page+": line 1:")
		require.NoError(t, os.WriteFile(w.ConfigPath(), config, 0o600))
		reload("Internet access is paused", "")
	})
	t.Run("a restart with the DNS down keeps the garden", func(t *testing.T) {
		require.NoError(t, dns.Signal(syscall.SIGKILL))
		<-dns.Done()
		w.Agent.Kill()
		require.NoError(t, w.StartAgent(t.Context()))
		real(curl(t, customer, "http://"+payName+"/", siteByName), siteByName)
		eventually(t, 15*time.Second, "the failure is told", func() (bool, error) {
			n := w.status(t).Garden.Names[0]
			return n.Error != "" && len(n.Addresses) == 1, nil
		})
		real(curl(t, customer, "http://"+payName+"/", siteByName), siteByName)
		require.Equal(t, "511", curl(t, customer, "http://any.example.org/", siteAny).code)
	})
	alive, beats := neighbour.Alive()
	require.True(t, alive, "the neighbour's connection lives on: %v", neighbour.Failure())
	require.Positive(t, beats)
}

// A guest has an address of a pool that nobody is bound to: he sees the page that
// invites him, and reaches his garden and nothing else.
func TestKernelPortalGuests(t *testing.T) {
	t.Parallel()
	labtest.Need(t, "curl", "dnsmasq")
	w := worldWithoutRelay(t, miniature.Options{Homes: 1, Extra: fmt.Sprintf(`portal: {listen: 10.0.0.1:8080, languages: [uk, en], contact: "+1 202 555 0143"}
acl:
  pause: {garden: [%s]}
  guest: {garden: [%s]}
`, siteByName, siteByAddr), Subnets: "  unknown_clients: guest\n  pools: [{name: guests, range: 198.51.100.200-198.51.100.250, for: guests}]\n"})
	w.startSites(t)
	require.NoError(t, w.StartAgent(t.Context()))
	guest := w.Homes[0].Host
	require.NoError(t, w.Access.IP("route", "add", "198.51.100.200/32", "dev", "ge1"))
	require.NoError(t, guest.IP("addr", "add", "198.51.100.200/24", "dev", "eth0"))
	require.NoError(t, guest.IP("route", "add", "default", "via", miniature.GatewayIP))

	a := curl(t, guest, "http://any.example.org/", siteAny, "-H", "Accept-Language: de")
	require.NoError(t, a.err)
	require.Equal(t, "511", a.code)
	require.Equal(t, "guest", a.state)
	require.Contains(t, a.body, "не зареєстровано", "the first language for who wants none of them")
	require.Contains(t, a.body, "202 555 0143")
	a = curl(t, guest, "http://captive.apple.com/hotspot-detect.html", siteAny)
	require.Equal(t, "302", a.code)
	require.Equal(t, "http://10.0.0.1:8080/", a.location)
	a = curl(t, guest, a.location, "10.0.0.1")
	require.Equal(t, "200", a.code)
	require.Contains(t, a.body, "198.51.100.200")

	a = curl(t, guest, "http://"+siteByAddr+"/", siteByAddr)
	require.NoError(t, a.err)
	require.Equal(t, "the real site at "+siteByAddr, a.body)
	require.Equal(t, "511", curl(t, guest, "http://"+siteByName+"/", siteByName).code, "the garden of paused customers is another")
	a = curl(t, guest, "https://any.example.org/", siteAny)
	require.ErrorContains(t, a.err, "exit status 7", "refused")
}
