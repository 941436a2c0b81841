package agent

import (
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/console"
	"github.com/usher-agent/usher/dhcpd/probe"
	"github.com/usher-agent/usher/provision"
	"github.com/usher-agent/usher/provision/lease"
	"github.com/usher-agent/usher/provision/link/lab/labtest"
	"github.com/usher-agent/usher/userside/emulator"
)

const somePool = `  pools:
    - {name: guests, for: guests, range: 198.51.100.200-198.51.100.250, lease_time: 10m, links: [127.0.0.1/32]}
  unknown_clients: guest
`

// disk is a state_dir that broken makes unusable, before the start or while the agent runs, and mend usable again.
type disk struct {
	later       bool
	broken      func(t *testing.T, state string)
	mend        func(t *testing.T, state string)
	error, help string
}

func disks() map[string]disk {
	remount := func(flags uintptr) func(t *testing.T, state string) {
		return func(t *testing.T, state string) {
			require.NoError(t, syscall.Mount("", state, "", syscall.MS_REMOUNT|flags, ""))
		}
	}
	return map[string]disk{
		"a file in place of the log": {
			broken: func(t *testing.T, state string) {
				require.NoError(t, os.WriteFile(filepath.Join(state, "leases"), nil, 0o600))
			},
			mend:  func(t *testing.T, state string) { require.NoError(t, os.Remove(filepath.Join(state, "leases"))) },
			error: "not a directory", help: "Something else stands in place of the directory",
		},
		"read-only at the start": {broken: remount(syscall.MS_RDONLY), mend: remount(0), error: "read-only file system", help: "Mount the file system for writing"},
		"read-only at a restart": {
			broken: func(t *testing.T, state string) {
				store, err := lease.OpenStore(t.Context(), state, slog.New(slog.DiscardHandler))
				require.NoError(t, err)
				require.NoError(t, store.Commit(func(b *lease.Batch) error {
					b.Forget = append(b.Forget, customerIP)
					return nil
				}))
				require.NoError(t, store.Close())
				remount(syscall.MS_RDONLY)(t, state)
			},
			mend: remount(0), error: "read-only file system", help: "Mount the file system for writing",
		},
		"full at the start": {
			broken: func(t *testing.T, state string) { fillUp(t, state) },
			mend:   func(t *testing.T, state string) { require.NoError(t, os.Remove(filepath.Join(state, "filler"))) },
			error:  "no space left on device", help: "Make room",
		},
		"taken away later": {
			later: true,
			broken: func(t *testing.T, state string) {
				require.NoError(t, os.Rename(filepath.Join(state, "leases"), filepath.Join(state, "gone")))
				require.NoError(t, os.WriteFile(filepath.Join(state, "leases"), nil, 0o600)) // else it is back at once
			},
			mend:  func(t *testing.T, state string) { require.NoError(t, os.Remove(filepath.Join(state, "leases"))) },
			error: "not a directory", help: "Something else stands",
		},
	}
}

func fillUp(t *testing.T, state string) {
	t.Helper()
	f, err := os.Create(filepath.Join(state, "filler"))
	require.NoError(t, err)
	for block := make([]byte, 4096); err == nil; {
		_, err = f.Write(block)
	}
	require.ErrorIs(t, err, syscall.ENOSPC)
	require.NoError(t, f.Close())
}

// A disk that cannot be used stops neither the agent nor the clients of bound addresses; the agent says so, tells the ERP all the
// same, and has everything on disk soon after the disk is back.
func TestKernelDisks(t *testing.T) {
	labtest.Need(t)
	for name, k := range disks() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			state := t.TempDir()
			require.NoError(t, syscall.Mount("tmpfs", state, "tmpfs", 0, "size=8m"))
			t.Cleanup(func() { require.NoError(t, syscall.Unmount(state, 0)) })
			if !k.later {
				k.broken(t, state)
			}
			d := newDaemonAt(t, Options{}, somePool, "", state)
			stop := d.launch(t, nil)
			if k.later {
				eventually(t, "it is ready", func() bool { st, err := d.client.Status(t.Context()); return err == nil && st.Ready })
				require.NoError(t, guest(t, d, 1, 3))
				k.broken(t, state)
			}
			var st *console.Status
			eventually(t, "it says so", func() bool {
				var err error
				st, err = d.client.Status(t.Context())
				return err == nil && st.Sync.Source != "" && st.State.Failing() && strings.Contains(st.State.Error, k.error)
			})
			assert.False(t, st.Ready)
			assert.Contains(t, strings.Join(st.NotReady, "; "), "pools lease nothing")
			assert.Contains(t, st.State.Text, k.error)
			assert.Contains(t, st.State.Advice, k.help)
			mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
			require.Equal(t, customerIP, d.lease(t, mac), "bound addresses are served")
			require.Error(t, guest(t, d, 2, 0), "pools lease nothing")
			x, err := d.client.Explain(t.Context(), "00:00:5e:00:53:02")
			require.NoError(t, err)
			assert.Contains(t, x.Summary, k.error)
			eventually(t, "the ERP learns the MAC", func() bool {
				c, _ := d.erp.Customer(d.id)
				return c.Addresses[0].MAC == emulator.MAC(mac)
			})
			k.mend(t, state)
			eventually(t, "it ends by itself", func() bool {
				st, err := d.client.Status(t.Context())
				return err == nil && st.Ready && !st.State.Failing() && st.Outbox.Unwritten == 0 && st.DHCP.Leases.Dirty == 0
			})
			require.NoError(t, guest(t, d, 2, 3), "and so do pools")
			// As a kill leaves it.
			killed := t.TempDir()
			require.NoError(t, os.CopyFS(filepath.Join(killed, "leases"), os.DirFS(filepath.Join(state, "leases"))))
			require.NoError(t, stop())
			kept, reports := d.onDisk(t, killed)
			assert.Equal(t, map[provision.MAC]bool{provision.MAC(mac): true, {0, 0, 0x5e, 0, 0x53, 2}: true, {0, 0, 0x5e, 0, 0x53, 1}: k.later}, withFalse(kept, provision.MAC{0, 0, 0x5e, 0, 0x53, 1}))
			assert.Empty(t, reports, "they were sent")
		})
	}
}

// ext4 mounts a small file system of its own at state, and returns how its device is called.
func ext4(t *testing.T, state string) (device string) {
	t.Helper()
	run := func(name string, args ...string) string {
		out, err := exec.Command(name, args...).CombinedOutput()
		require.NoError(t, err, "%s %v: %s", name, args, out)
		return strings.TrimSpace(string(out))
	}
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 32<<20))
	run("mkfs.ext4", "-q", "-F", image)
	run("mount", "-o", "loop,errors=remount-ro", image, state)
	t.Cleanup(func() { run("umount", "--lazy", state) }) // an agent may still use it when a test has failed
	return filepath.Base(run("findmnt", "-n", "-o", "SOURCE", state))
}

// A disk that hangs is said after some seconds, though it gives no error, and what waits for it is written when it answers again.
func TestKernelHangingDisk(t *testing.T) {
	labtest.Need(t)
	t.Parallel()
	state := t.TempDir()
	ext4(t, state)
	freeze := func(how string) error { return exec.Command("fsfreeze", how, state).Run() }
	d := newDaemonAt(t, Options{}, somePool, "", state)
	stop := d.launch(t, nil)
	eventually(t, "it is ready", func() bool { st, err := d.client.Status(t.Context()); return err == nil && st.Ready })
	require.NoError(t, guest(t, d, 1, 3))
	require.NoError(t, freeze("--freeze"))
	t.Cleanup(func() { _ = freeze("--unfreeze") }) // an error: it is not frozen any more
	require.Error(t, guest(t, d, 2, 0))
	var st *console.Status
	eventually(t, "it says so", func() bool {
		var err error
		st, err = d.client.Status(t.Context())
		return err == nil && st.State.Failing()
	})
	assert.Equal(t, lease.NoAnswer, st.State.Error)
	assert.False(t, st.Ready)
	assert.Contains(t, strings.Join(st.NotReady, "; "), "pools lease nothing")
	assert.Contains(t, st.State.Advice, "The disk hangs")
	require.Equal(t, customerIP, d.lease(t, net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}), "bound addresses are served")
	require.Error(t, guest(t, d, 3, 0), "pools lease nothing")
	x, err := d.client.Explain(t.Context(), "00:00:5e:00:53:03")
	require.NoError(t, err)
	assert.Contains(t, x.Summary, lease.NoAnswer)
	require.NoError(t, freeze("--unfreeze"))
	eventually(t, "it ends by itself", func() bool {
		st, err := d.client.Status(t.Context())
		return err == nil && st.Ready && !st.State.Failing() && st.Outbox.Unwritten == 0 && st.DHCP.Leases.Dirty == 0
	})
	require.NoError(t, guest(t, d, 3, 3))
	require.NoError(t, stop())
}

// A file system that the kernel makes read-only after an error, while files of it are open for writing, and that another one takes the place of.
func TestKernelDiskTurnsReadOnly(t *testing.T) {
	labtest.Need(t)
	t.Parallel()
	state := t.TempDir()
	device := ext4(t, state)
	d := newDaemonAt(t, Options{}, somePool, "", state)
	stop := d.launch(t, nil)
	eventually(t, "it is ready", func() bool { st, err := d.client.Status(t.Context()); return err == nil && st.Ready })
	require.NoError(t, guest(t, d, 1, 3))
	require.NoError(t, os.WriteFile(filepath.Join("/sys/fs/ext4", device, "trigger_fs_error"), []byte("a test"), 0))
	require.Error(t, guest(t, d, 2, 0), "it is acknowledged before it is on disk")
	var st *console.Status
	eventually(t, "it says so", func() bool {
		var err error
		st, err = d.client.Status(t.Context())
		return err == nil && strings.Contains(st.State.Error, "read-only file system")
	})
	assert.False(t, st.Ready)
	assert.Contains(t, st.State.Advice, "Mount the file system for writing")
	mac := net.HardwareAddr{0, 0, 0x5e, 0, 0x53, 0x17}
	require.Equal(t, customerIP, d.lease(t, mac), "bound addresses are served")
	require.NoError(t, syscall.Mount("tmpfs", state, "tmpfs", 0, "size=8m"))
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(state, 0)) })
	eventually(t, "it ends by itself", func() bool {
		st, err := d.client.Status(t.Context())
		return err == nil && st.Ready && !st.State.Failing() && st.Outbox.Unwritten == 0 && st.DHCP.Leases.Dirty == 0
	})
	require.NoError(t, guest(t, d, 2, 3))
	require.NoError(t, stop())
	kept, _ := d.onDisk(t, state)
	assert.Equal(t, map[provision.MAC]bool{provision.MAC(mac): true, {0, 0, 0x5e, 0, 0x53, 1}: true, {0, 0, 0x5e, 0, 0x53, 2}: true}, kept)
}

// withFalse has a key in any case.
func withFalse(all map[provision.MAC]bool, k provision.MAC) map[provision.MAC]bool {
	if _, ok := all[k]; !ok {
		all[k] = false
	}
	return all
}

// guest gets an address of the pool for a client that the ERP does not know.
func guest(t *testing.T, d *daemon, number, retries int) error {
	t.Helper()
	_, err := d.leaseAt(t, net.HardwareAddr{0, 0, 0x5e, 0, 0x53, byte(number)}, 9, probe.Client{Retries: retries})
	return err
}

// onDisk returns whose leases a state directory has, and the reports that wait there. All of it must be readable.
func (d *daemon) onDisk(t *testing.T, state string) (kept map[provision.MAC]bool, reports []provision.MACReport) {
	t.Helper()
	store, err := lease.OpenStore(t.Context(), state, d.log)
	require.NoError(t, err)
	defer func() { require.NoError(t, store.Close()) }()
	kept = map[provision.MAC]bool{}
	require.NoError(t, store.Leases(func(r lease.Record, err error) {
		require.NoError(t, err)
		kept[r.MAC] = true
	}))
	require.NoError(t, store.Reports(func(r provision.MACReport, err error) {
		require.NoError(t, err)
		reports = append(reports, r)
	}))
	return kept, reports
}
