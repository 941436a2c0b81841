package wal

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/usher-agent/usher/provision/link/lab/labtest"
)

// tracedDir has this program do in a directory what a test looks at from outside.
const tracedDir = "USHER_TRACED_DIR"

func TestMain(m *testing.M) {
	if path := os.Getenv(tracedDir); path != "" {
		runtime.LockOSThread() // of which there is one trace, with each call whole
		if err := traced(dir(path)); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

func traced(d dir) error {
	if err := d.Sync("settled"); err != nil {
		return err
	}
	if _, err := d.Aside("damaged file"); err != nil {
		return err
	}
	if err := d.copy("damaged file", d.path("copy")); err != nil {
		return err
	}
	f, err := d.Create("new.tmp")
	if err != nil {
		return err
	}
	if _, err := f.WriteAt([]byte("x"), 0); err != nil {
		return err
	}
	if err := f.Sync(); err != nil {
		return err
	}
	if err := d.Rename("new.tmp", "new"); err != nil {
		return err
	}
	if err := d.SyncDir(); err != nil {
		return err
	}
	for _, log := range []string{"made anew", "made and left", "made and left"} {
		unlock, err := dir(d.path(log)).Lock()
		if err != nil {
			return err
		}
		if err := unlock(); err != nil {
			return err
		}
	}
	return nil
}

// A directory as the kernel sees it: what a killed process left is synced before it counts, a damaged file is on disk under its other name before
// anybody takes the first one away, and a copy of one, or a new file, before it has its name. A directory of the log has its own name on disk before
// anything is in it, also where a process made it and was killed before it came to that.
func TestKernelDirectoryIsSynced(t *testing.T) {
	labtest.Need(t, "strace")
	path := t.TempDir()
	for _, name := range []string{"settled", "damaged file"} {
		require.NoError(t, os.WriteFile(filepath.Join(path, name), []byte("x"), 0o600))
	}
	require.NoError(t, os.Mkdir(filepath.Join(path, "made and left"), 0o700))
	self, err := os.Executable()
	require.NoError(t, err)
	trace := filepath.Join(t.TempDir(), "trace")
	cmd := exec.CommandContext(t.Context(), "strace", "-ff", "-q", "-y", "-o", trace, "-e", "trace=mkdir,mkdirat,flock,fsync,fdatasync,pwrite64,rename,renameat,renameat2,link,linkat,unlink,unlinkat", self)
	cmd.Env = append(os.Environ(), tracedDir+"="+path)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, string(out))
	threads, err := filepath.Glob(trace + ".*")
	require.NoError(t, err)
	var text []byte
	for _, thread := range threads {
		b, err := os.ReadFile(thread)
		require.NoError(t, err)
		text = append(text, b...)
	}
	var did []string
	of := regexp.MustCompile(`^(\w+)\((.*)\) += (\d+)$`)
	file := regexp.MustCompile(`[<"](` + regexp.QuoteMeta(path) + `[^>"]*)[>"]`)
	for line := range strings.Lines(string(text)) {
		m := of.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil || !strings.Contains(m[2], path) {
			continue
		}
		words := []string{strings.TrimSuffix(strings.TrimSuffix(m[1], "at2"), "at")}
		for _, f := range file.FindAllStringSubmatch(m[2], -1) {
			rel, err := filepath.Rel(path, f[1])
			require.NoError(t, err)
			words = append(words, rel)
		}
		did = append(did, strings.Join(words, " "))
	}
	require.Equal(t, []string{
		"fdatasync settled",
		"mkdir damaged", "link damaged file damaged/damaged file", "fsync damaged", "fsync .",
		"pwrite64 copy.tmp", "fsync copy.tmp", "rename copy.tmp copy",
		"pwrite64 new.tmp", "fdatasync new.tmp", "rename new.tmp new", "fsync .",
		"mkdir made anew", "fsync .", "flock made anew/lock",
		"fsync .", "flock made and left/lock",
		"flock made and left/lock",
	}, did)
}
