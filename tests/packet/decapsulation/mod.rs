//! The side of a server with a tunnel, for kernels without the devices of tunnels: a program that takes packets out
//! of those that they come in.

use std::error::Error;

use aya::Ebpf;
use aya::programs::{SchedClassifier, TcAttachType, tc};

/// An object, where its reader finds it aligned.
#[repr(align(8))]
struct AlignedObject<T: ?Sized>(T);
static OBJECT: &AlignedObject<[u8]> = &AlignedObject(*include_bytes!("decapsulate.bpf.o"));

/// Has a device of the calling thread's network namespace unpack what comes by tunnels, until the answer is dropped
/// or the device is removed.
pub(crate) fn attach_decapsulation(device: &str) -> Result<Ebpf, Box<dyn Error + Send + Sync>> {
    let mut object = Ebpf::load(&OBJECT.0)?;
    let program = object.program_mut("decapsulate").ok_or("the object has no program")?;
    let program: &mut SchedClassifier = program.try_into()?;
    program.load()?;
    tc::qdisc_add_clsact(device)?;
    program.attach(device, TcAttachType::Ingress)?;
    Ok(object)
}
