//! Names and units of a model's joints, actuators and sensors.

use mujoco_rs::prelude::{MjtJoint, MjtObjBase, MjtTrn};

use super::Model;
use crate::{Field, field::with_unique_names};

impl Model {
    /// A field for each entry of `qpos`, named after the joints: slides in m, hinges in rad. A hinge without limits is an
    /// [angle](crate::FieldKind::Angle), one with limits is linear; a free joint has a position and a quaternion.
    #[must_use]
    pub fn position_fields(&self) -> Vec<Field> {
        let limited = self.inner().jnt_limited();
        let of = |(id, name): (usize, String)| match self.inner().jnt_type()[id] {
            MjtJoint::mjJNT_FREE => [&parts(&name, &["x", "y", "z"], "m")[..], &quaternion(&name)].concat(),
            MjtJoint::mjJNT_BALL => quaternion(&name),
            MjtJoint::mjJNT_SLIDE => vec![Field::linear(name, "m")],
            MjtJoint::mjJNT_HINGE if limited[id] => vec![Field::linear(name, "rad")],
            MjtJoint::mjJNT_HINGE => vec![Field::angle(name)],
        };
        with_unique_names(self.joints().flat_map(of).collect())
    }

    /// A field for each entry of `qvel`, named after the joints: m/s and rad/s.
    #[must_use]
    pub fn velocity_fields(&self) -> Vec<Field> {
        let of = |(id, name): (usize, String)| match self.inner().jnt_type()[id] {
            MjtJoint::mjJNT_FREE => {
                [parts(&name, &["vx", "vy", "vz"], "m/s"), parts(&name, &["wx", "wy", "wz"], "rad/s")].concat()
            }
            MjtJoint::mjJNT_BALL => parts(&name, &["wx", "wy", "wz"], "rad/s"),
            MjtJoint::mjJNT_SLIDE => vec![Field::linear(format!("{name}_velocity"), "m/s")],
            MjtJoint::mjJNT_HINGE => vec![Field::linear(format!("{name}_velocity"), "rad/s")],
        };
        with_unique_names(self.joints().flat_map(of).collect())
    }

    /// A field for each actuator with as many columns as it has controls, named after it or, if it has no name, after the joint
    /// that it moves. Controls have no unit of their own: gears and gains convert them to forces.
    #[must_use]
    pub fn control_fields(&self) -> Vec<Field> {
        let inner = self.inner();
        let name = |id: usize| {
            let joint = || match inner.actuator_trntype().get(id)? {
                MjtTrn::mjTRN_JOINT => {
                    inner.id_to_name(MjtObjBase::mjOBJ_JOINT, inner.actuator_trnid()[id][0] as usize)
                }
                _ => None,
            };
            let named = inner.id_to_name(MjtObjBase::mjOBJ_ACTUATOR, id).or_else(joint);
            named.map_or_else(|| format!("actuator{id}"), str::to_owned)
        };
        let controls = inner.actuator_ctrlnum().iter().enumerate().filter(|(_, controls)| **controls > 0);
        with_unique_names(controls.map(|(id, controls)| columns(Field::linear(name(id), ""), *controls)).collect())
    }

    /// A field for each sensor, named after it, with as many columns as it has readings.
    #[must_use]
    pub fn sensor_fields(&self) -> Vec<Field> {
        let field = |(id, size): (usize, &i32)| {
            columns(Field::linear(self.name_of(MjtObjBase::mjOBJ_SENSOR, "sensor", id), ""), *size)
        };
        with_unique_names(self.inner().sensor_dim().iter().enumerate().map(field).collect())
    }

    /// Names of the bodies except the world.
    pub(super) fn body_names(&self) -> impl Iterator<Item = String> {
        (1..self.inner().nbody() as usize).map(|id| self.name_of(MjtObjBase::mjOBJ_BODY, "body", id))
    }

    fn joints(&self) -> impl Iterator<Item = (usize, String)> {
        (0..self.inner().njnt() as usize).map(|id| (id, self.name_of(MjtObjBase::mjOBJ_JOINT, "joint", id)))
    }

    /// The name of a part, otherwise its kind and number.
    fn name_of(&self, kind: MjtObjBase, called: &str, id: usize) -> String {
        self.inner().id_to_name(kind, id).map_or_else(|| format!("{called}{id}"), str::to_owned)
    }
}

/// A field with one column, or with several.
fn columns(field: Field, count: i32) -> Field {
    if count == 1 { field } else { field.with_shape([count as usize]) }
}

fn quaternion(name: &str) -> Vec<Field> {
    parts(name, &["qw", "qx", "qy", "qz"], "")
}

/// `name_x`, `name_y` and so on.
pub(super) fn parts(name: &str, parts: &[&str], unit: &str) -> Vec<Field> {
    parts.iter().map(|part| Field::linear(format!("{name}_{part}"), unit)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{AngleColumn, field};

    #[test]
    fn every_column_is_called_by_its_joint() {
        let model = Model::from_xml(
            r#"<mujoco><worldbody>
                 <body name="float"><freejoint name="root"/><geom size="0.1"/>
                   <body><joint name="wheel" axis="0 1 0"/><geom size="0.1" pos="0 0 1"/></body>
                   <body><joint name="knee" axis="0 1 0" range="-30 30"/><geom size="0.1" pos="0 0 1"/></body>
                   <body><joint type="ball"/><geom size="0.1" pos="0 0 1"/></body>
                   <body><joint name="slide" type="slide"/><geom size="0.1"/></body>
                 </body></worldbody>
               <actuator><motor joint="wheel"/><motor name="lift" joint="knee"/><motor joint="wheel"/></actuator>
               <sensor><jointpos joint="wheel"/><framepos name="place" objtype="body" objname="float"/></sensor></mujoco>"#,
        )
        .unwrap();
        let names = |fields: &[Field]| fields.iter().flat_map(Field::column_names).collect::<Vec<_>>().join(" ");
        let positions = model.position_fields();
        assert_eq!(
            names(&positions),
            "root_x root_y root_z root_qw root_qx root_qy root_qz wheel knee joint3_qw joint3_qx joint3_qy joint3_qz slide"
        );
        assert_eq!(positions.len(), model.nq());
        // The wheel turns all the way round; the knee has stops.
        assert_eq!(field::angles(&positions), [AngleColumn::radians(7)]);
        let velocities = model.velocity_fields();
        assert_eq!(
            names(&velocities),
            "root_vx root_vy root_vz root_wx root_wy root_wz wheel_velocity knee_velocity joint3_wx joint3_wy joint3_wz \
             slide_velocity"
        );
        assert_eq!((velocities.len(), &*velocities[11].unit, &*velocities[6].unit), (model.nv(), "m/s", "rad/s"));
        assert_eq!(names(&model.control_fields()), "wheel lift wheel_2");
        assert_eq!(names(&model.sensor_fields()), "sensor0 place[0] place[1] place[2]");
    }
}
