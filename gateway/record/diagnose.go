package record

import (
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/tidegate/tidegate/access"
)

// forgotten is how long an open recording may go without a new byte. A session
// that says nothing for a day is possible; a recording that nobody seals after
// its gateway died is likelier.
const forgotten = 24 * time.Hour

// Diagnose looks at a folder of recordings: is it ours, is there room, is
// something left unsealed. It writes nothing.
func Diagnose(c Config) []access.Finding {
	f := &access.Findings{Part: "recordings"}
	c.defaults()
	info, err := os.Stat(c.Dir)
	switch {
	case err != nil:
		f.Fail("The first start of the gateway makes it; else look at dir in the block recordings.", "%s can't be used: %v", c.Dir, err)
		return f.List
	case !info.IsDir() || !writable(c.Dir):
		f.Fail("Give the folder to the user that runs the gateway, with mode 700.", "%s is no folder that we can write to", c.Dir)
	default:
		f.OK("%s can be written to", c.Dir)
	}
	switch free, err := freeBytes(c.Dir); {
	case err != nil:
		f.Fail("Look at the file system.", "its free space can't be read: %v", err)
	case free < c.MinFree:
		f.Fail("Make room: no session opens.", "%d MiB are free, the least is %d MiB", free>>20, c.MinFree>>20)
	case free < 4*c.MinFree:
		f.Warn("Make room soon: no session opens below the least.", "%d MiB are free, the least is %d MiB", free>>20, c.MinFree>>20)
	default:
		f.OK("%d MiB are free", free>>20)
	}
	unsealed(f, c)
	return f.List
}

func unsealed(f *access.Findings, c Config) {
	all, err := os.ReadDir(filepath.Join(c.Dir, openDir))
	if os.IsNotExist(err) {
		return
	}
	if err != nil {
		f.Fail("Look at the folder's mode.", "its open recordings can't be listed: %v", err)
		return
	}
	open := 0
	for _, e := range all {
		id, ours := strings.CutSuffix(e.Name(), ext)
		if !ours { // the journal
			continue
		}
		if info, err := e.Info(); err == nil && isForgotten(info, c.Now()) {
			f.Warn("The gateway seals it at its next start, or says in its log why it can't.", "the recording of session %s is not sealed, and has not grown since %s",
				id, info.ModTime().UTC().Format(time.DateTime))
			continue
		}
		open++
	}
	f.OK("%d recordings are being written", open)
}

func isForgotten(info fs.FileInfo, now time.Time) bool {
	return now.Sub(info.ModTime()) > forgotten
}
