package demo

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/usher-agent/usher/cmd/usher/internal/agent"
	"github.com/usher-agent/usher/cmd/usher/internal/miniature"
	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/userside/emulator"
)

// loopback is the demo without privileges: a relay and its client are this
// process, the ACL is computed but not written.
func (d *demo) loopback(ctx context.Context, end func()) error {
	erp, err := emulator.Open(emulator.Options{Keys: []emulator.Key{{Key: miniature.Key}}})
	if err != nil {
		return err
	}
	defer erp.Close()
	ip := netip.MustParseAddr("198.51.100.17")
	device, err := miniature.AddSwitch(erp, netip.MustParseAddr("10.0.0.2"), 4)
	if err != nil {
		return err
	}
	id, err := miniature.AddCustomer(erp, "customer", ip, device, 3)
	if err != nil {
		return err
	}
	api, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return err
	}
	srv := &http.Server{Handler: erp, ReadHeaderTimeout: 5 * time.Second}
	served := make(chan struct{})
	go func() {
		defer close(served)
		_ = srv.Serve(api)
	}()
	defer func() { _ = srv.Close(); <-served }()

	relay, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return err
	}
	defer relay.Close()
	server, err := freeUDPPort()
	if err != nil {
		return err
	}
	client := &console.Client{Socket: filepath.Join(d.dir, "usher.sock")}
	if err := d.step("usher status --socket "+client.Socket, func() (string, error) {
		stop, err := d.loopbackAgent(ctx, client, api.Addr().String(), server, relay.LocalAddr().(*net.UDPAddr).Port)
		if err != nil {
			return "", err
		}
		d.cleanup = append(d.cleanup, stop)
		st, err := client.Status(ctx)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("usher run is ready on %s: %d bindings from the ERP on %s", st.DHCP.Listen, st.Sync.Counts.Bindings, api.Addr()), nil
	}); err != nil {
		return err
	}
	mac := net.HardwareAddr{0x00, 0x00, 0x5e, 0x00, 0x53, 0x17}
	if err := d.step("usher explain "+ip.String()+" --socket "+client.Socket, func() (string, error) {
		got, err := relayedLease(ctx, relay, server, mac)
		if err != nil {
			return "", err
		}
		if got != ip {
			return "", fmt.Errorf("the client was given %s, the ERP binds %s", got, ip)
		}
		return fmt.Sprintf("a relayed client behind port 3 (option 82) got its address %s", got), nil
	}); err != nil {
		return err
	}
	if err := d.step("", func() (string, error) {
		learned, err := miniature.LearnedMAC(ctx, erp, id, ip)
		return fmt.Sprintf("the ERP learned by set_mac_by_ip that %s is at %s", ip, learned), err
	}); err != nil {
		return err
	}
	for _, change := range []struct {
		state emulator.State
		want  int
	}{{emulator.StatePause, 1}, {emulator.StateActive, 0}} {
		if err := d.step("", func() (string, error) {
			began := time.Now()
			if err := erp.SetState(id, change.state); err != nil {
				return "", err
			}
			err := miniature.Until(ctx, 10*time.Second, "the ACL follows the ERP", func() (bool, error) {
				st, err := client.Status(ctx)
				return err == nil && st.ACL.WantPaused == change.want, err
			})
			return fmt.Sprintf("%s in the ERP: the ACL would block %d addresses (after %d ms, poll every second; not written: dry run)",
				change.state, change.want, time.Since(began).Milliseconds()), err
		}); err != nil {
			return err
		}
	}
	d.say("%s in %.1f s, without kernel and real client: run it as root to see those", d.paint.Bold("the job"), time.Since(d.begun).Seconds())
	end()
	return nil
}

// loopbackAgent starts "usher run" and waits until it is ready.
func (d *demo) loopbackAgent(ctx context.Context, client *console.Client, api string, server, relay int) (stop func(), err error) {
	key := filepath.Join(d.dir, "userside.key")
	if err := os.WriteFile(key, []byte(miniature.Key+"\n"), 0o600); err != nil {
		return nil, err
	}
	config := filepath.Join(d.dir, "usher.yaml")
	yaml := loopbackConfig(d.dir, api, key, server, relay, client.Socket)
	if err := os.WriteFile(config, []byte(yaml), 0o600); err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	log, err := os.Create(filepath.Join(d.dir, "agent.log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(self, "run", "--config", config)
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	stop = func() {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		select {
		case <-ended:
		case <-time.After(agent.StopLimit):
			_ = cmd.Process.Kill()
			<-ended
		}
	}
	err = miniature.Until(ctx, 20*time.Second, "the agent is ready", func() (bool, error) {
		select {
		case <-ended:
			b, _ := os.ReadFile(log.Name())
			return false, errors.New("usher run ended: " + miniature.LastLines(string(b), 5))
		default:
		}
		st, err := client.Status(ctx)
		return err == nil && st.Ready, nil
	})
	if err != nil {
		stop()
		return nil, err
	}
	return stop, nil
}

// loopbackConfig returns the configuration of the agent that has its ERP at api and a relay, this process, at a port.
func loopbackConfig(dir, api, key string, server, relay int, socket string) string {
	return fmt.Sprintf(`state_dir: %s
userside: {url: "http://%s/api.php", key_file: %s, poll_interval: 1s, refresh_interval: 1s}
dhcp:
  listen: 127.0.0.1:%d
  relay_port: %d
  relays: [127.0.0.1] # this process; as one address, for it is one of this host
  check_relay_source: true
  option82_relays: all
  subscriber_interfaces: []
  trusted_interfaces: none
  server_id: 127.0.0.1
  subnets:
    - {prefix: %s, gateway: %s, dns: [%s]}
acl: {dry_run: true}
control: {socket: %s}
console: {listen: "off"}
`, filepath.Join(dir, "state"), api, key, server, relay, miniature.Prefix, miniature.GatewayIP, miniature.GatewayIP, socket)
}

// freeUDPPort returns a port of loopback that nobody uses.
func freeUDPPort() (int, error) {
	conn, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		return 0, err
	}
	port := conn.LocalAddr().(*net.UDPAddr).Port
	return port, conn.Close()
}

// relayedLease gets a lease as a D-Link switch would relay it: option 82 with
// VLAN 100, port 3 and the switch's MAC.
func relayedLease(ctx context.Context, relay *net.UDPConn, server int, mac net.HardwareAddr) (netip.Addr, error) {
	loopback := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	info, err := probe.RelayInfo([]byte{0, 4, 0, 100, 0, 3}, []byte{0, 6, 0x00, 0x00, 0x5e, 0x00, 0x53, 0x01})
	if err != nil {
		return netip.Addr{}, err
	}
	client := probe.Client{Port: probe.NewUDP(relay, netip.AddrPortFrom(loopback, uint16(server))), Retries: 2}
	return client.Lease(ctx, probe.Query{MAC: mac, GIAddr: loopback, RelayInfo: [][]byte{info}})
}
