//! Limits of controls.

use mujoco_rs::prelude::{MjtBias, MjtDyn, MjtGain, MjtTrn};

use super::Model;
use crate::{BoxSpace, EnvError};

impl Model {
    /// Limits of the controls, `[nu]`: the model's `ctrlrange`. Where it gives none, the limits beyond which a control makes no
    /// difference:
    ///
    /// - 0 to 1 for a muscle, which clips its excitation to it;
    /// - for a motor whose force is its gain times the control, and limited (`forcerange`): the controls that give these forces;
    /// - the joint's range for a servo on a joint with limits (`position`, `intvelocity` and similar ones), beyond which it only
    ///   pushes harder.
    ///
    /// Other controls have no limits: −∞ to ∞.
    ///
    /// # Errors
    /// [`EnvError::Bounds`] for limits that single precision cannot distinguish from none.
    ///
    /// ```
    /// use mbrl_env::mujoco::Model;
    /// let model = Model::from_xml(
    ///     r#"<mujoco>
    ///          <worldbody><body><joint name="hinge" range="-90 90"/><geom size="0.1"/></body></worldbody>
    ///          <actuator>
    ///            <motor joint="hinge"/>
    ///            <motor joint="hinge" forcerange="-2 2"/>
    ///            <position joint="hinge" kp="10"/>
    ///          </actuator>
    ///        </mujoco>"#,
    /// )?;
    /// let limits = model.control_limits()?;
    /// assert_eq!(limits.high()[..2], [f32::INFINITY, 2.0]);
    /// assert!((limits.high()[2] - std::f32::consts::FRAC_PI_2).abs() < 1e-6);
    /// # Ok::<(), mbrl_env::EnvError>(())
    /// ```
    pub fn control_limits(&self) -> Result<BoxSpace, EnvError> {
        let inner = self.inner();
        let mut limits = vec![[f64::NEG_INFINITY, f64::INFINITY]; self.nu()];
        let controls = inner.actuator_ctrladr().iter().zip(inner.actuator_ctrlnum());
        for (actuator, (first, count)) in controls.enumerate() {
            for control in 0..*count {
                let control = (*first + control) as usize;
                if inner.actuator_ctrllimited()[control] {
                    limits[control] = inner.actuator_ctrlrange()[control];
                } else if let (1, Some(useful)) = (*count, self.useful_controls(actuator)) {
                    limits[control] = useful;
                }
            }
        }
        let (low, high): (Vec<f32>, Vec<f32>) = limits.iter().map(|[low, high]| (*low as f32, *high as f32)).unzip();
        BoxSpace::new(low, high)
    }

    /// The control values of an actuator with one control beyond which nothing changes, or nothing useful.
    fn useful_controls(&self, actuator: usize) -> Option<[f64; 2]> {
        let inner = self.inner();
        if inner.actuator_dyntype()[actuator] == MjtDyn::mjDYN_MUSCLE {
            return Some([0.0, 1.0]);
        }
        let (gain, bias) = (inner.actuator_gainprm()[actuator][0], inner.actuator_biasprm()[actuator]);
        if inner.actuator_gaintype()[actuator] != MjtGain::mjGAIN_FIXED || gain <= 0.0 {
            return None;
        }
        match (inner.actuator_dyntype()[actuator], inner.actuator_biastype()[actuator]) {
            // Force = gain · control.
            (MjtDyn::mjDYN_NONE, MjtBias::mjBIAS_NONE) if inner.actuator_forcelimited()[actuator] => {
                Some(inner.actuator_forcerange()[actuator].map(|force| force / gain))
            }
            // Force = gain · (control − length) − damping: the control is a length.
            (MjtDyn::mjDYN_NONE | MjtDyn::mjDYN_FILTER | MjtDyn::mjDYN_FILTEREXACT, MjtBias::mjBIAS_AFFINE)
                if bias[0] == 0.0 && bias[1] == -gain && inner.actuator_trntype()[actuator] == MjtTrn::mjTRN_JOINT =>
            {
                let joint = inner.actuator_trnid()[actuator][0] as usize;
                let output = inner.actuator_outadr()[actuator] as usize;
                let gear = inner.actuator_gear()[output][0];
                let [a, b] = inner.jnt_range()[joint].map(|angle| angle * gear);
                inner.jnt_limited()[joint].then(|| [a.min(b), a.max(b)])
            }
            _ => None,
        }
    }
}
